"""The rows: schema, reading, validation, split, disclosure control.

addresses      addresses as they may be shown: without the user and password that some carry
atomic         files and folders that are complete or absent
disclosure     disclosure control: no published number identifies a few people
documents      typed documents as JSON
downloads      downloads into the cache, whole or not at all
draft          a first schema for a table that has none
errors         errors that a person can correct: shown as one message, without a traceback
excel_files    Excel workbooks (.xlsx)
files          files on this machine, identified by their content
prepared       the prepared data set: three parts, rejected rows, profile, digest
processors     how many processors this process may keep busy
profile        what preprocess publishes of a data set
readers        rows of files of every kind, as they are written
reading        conversion of a file's columns to the schema's
release_facts  facts of a release in `build/release`: its folder, its `release.json`, the project's version
sas_files      SAS transport files (.xpt), as the CDC publishes its surveys, in chunks by pandas
schema         the schema: everything that is known about the columns of a data set
schema_file    reading a schema from a YAML file, with every problem reported at once
schema_keys    the keys of a schema file: the meaning of each and the kind of its value
schema_rules   rules between the keys of a schema file
sources        where the rows come from: files, folders, globs, URLs and the schema's named sources
split          training, validation and test rows
text_files     reading tables of text (CSV and its relatives)
text_format    detecting how a table of text is written, from its first lines
validation     checking rows against the schema
values         canonical values: one form for each value
"""
