"""What people read: HTML reports, plots, model card, one person's page, job summaries.

checklists    two checklists at the end of a report
drift         the report of a drift comparison
evaluation    the report for a reader and the card of a model, rendered from evaluations alone
exploration   the report of an exploration: one HTML file that loads nothing from anywhere, answers first
html          the one Jinja environment of all reports and cards
job_summary   what a workflow's page says of a run
model_terms   A glass box
palette       the colours of every picture
person_page   one person's page
plots         what matplotlib draws
promotion     A promotion for a reader
search_plots  pictures of a search, as PNG bytes: how it went, and what each family reached
svg           small pictures as SVG text
"""
