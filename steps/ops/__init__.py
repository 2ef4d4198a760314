"""The commands of make and GitHub Actions beside MLProject: `python -m steps.ops.NAME`.

init_store    create the tracking store before anything uses it
plan          the steps that the chain would run, and why
check_data    validate and prepare labelled data, with a report
retrain       train if there is a reason, and summarise
changes       every attempt to replace a champion, and its approvals
draft_schema  a first schema for a table that has none
release       export a registered version into build/release
publish       push the tested images and attach the release
keep_store    the tracking store between two runs of GitHub Actions
"""
