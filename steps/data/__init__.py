"""What a row is and where rows come from: schema, reading, validation, split, disclosure.

addresses      addresses as they may be shown: without the user and password that some carry
atomic         files and folders that are complete or absent
disclosure     what may be shown of people
documents      typed documents as JSON
downloads      downloads: the content behind a URL as a file of the cache, whole or not at all
draft          A first schema for a table that has none
errors         errors that a person caused and can mend: shown as one message, without a traceback
excel_files    Excel workbooks (.xlsx)
files          files on this machine
prepared       from checked rows to a prepared data set
processors     how many processors this process may keep busy
profile        what preprocess publishes of a data set
readers        rows of files as they were written
reading        from a file's columns to the schema's
release_facts  what a release in `build/release` is: its folder, its `release.json`, the project's version
sas_files      SAS transport files (.xpt), as the CDC publishes its surveys, in chunks by pandas
schema         the schema: everything that is known about the columns of a data set
schema_file    from a YAML file to a schema: every problem of the file at once, in plain words
schema_keys    what a schema file may hold: every key, what it means, and what its value should be
schema_rules   rules of a schema file that concern more than one key
sources        where the rows come from: files, folders, globs, URLs and the schema's named sources
split          training
text_files     tables of text (CSV and its relatives) as their rows stand
text_format    how a table of text is written: found out from its first lines where they leave no doubt
validation     rows against the schema: which are fit to learn from, which are not, and why
values         canonical values
"""
