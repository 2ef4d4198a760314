"""Output for people: HTML reports, plots, model card, one person's page, job summaries.

checklists    two checklists at the end of a report
drift         the report of a drift comparison
evaluation    the report of an evaluation and the model card, from evaluations alone
exploration   the report of an exploration: one self-contained HTML file, answers first
html          the Jinja environment and the number formats of all reports and cards
job_summary   a run as a workflow's page shows it
model_terms   the terms of a glass box: curves, heat maps, table
palette       the colours of every picture
person_page   one person's page
plots         plots by matplotlib
promotion     the requirements of a promotion as a table
search_plots  plots of a search, as PNG bytes
svg           small pictures as SVG text
"""
