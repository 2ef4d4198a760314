"""Statistics of rows, risks and outcomes: pure functions and typed documents, no I/O, no MLflow.

associations            how strongly columns go together
bins                    columns as small whole numbers
catalogue               every measure of an evaluation
comparison              a model on test rows, alone and beside another, with standard errors
concordance             what ROC AUC a model's own risks promise
curves                  the data of a report's figures
decisions               the consequences of a decision threshold
delong                  DeLong's variance of ROC AUC, for one score or for two scores of the same rows
drift                   compare new data with the data that a model was trained on
drift_document          `drift.json` as a typed document
drift_performance       performance of a model on new people, with and without labels
drift_shifts            shifts of features and of predicted risks
drift_verdict           verdict, reasons and advice that follow from the differences
evaluation              evaluation of one model on one set of rows
evaluation_document     `evaluation.json`: the figures of a model on a set of rows, as a typed document
evidence                the numpy reference of the Prometheus rules: drift and performance from counts
exploration             a data set before a model is fitted to it
exploration_columns     people and outcome rates by level of a column, subgroup and file
exploration_document    `exploration.json` as a typed document
exploration_prediction  predictive value of each column alone, of each pair, and beyond all others
groups                  figures of the schema's subgroups, and calibration where two of them meet
importance              permutation importance: how much a model's ranking loses when one column is shuffled
instrument              whether a column looks as if its scale or its zero had changed
intervals               95 % intervals in closed form, each with its name in reports
logistic                logistic regression of a few columns by Newton's method, with its covariance
metrics                 metrics of a risk of a binary outcome
missing_answers         performance of a model when an answer is missing
oddities                oddities of a numeric column
outcome_levels          risks by the level of an outcome that has more than two
point_scores            point scores on the same rows as the model
promotion               whether a model may replace the champion
recalibration           recalibration of risks by two numbers
repeated_people         people who are counted several times
row_order               whether rows stand in random order
scored_rows             rows with their outcomes and the risks that a model gives them
selection               figures of late labels, weighted by how completely each score bin is labelled
separability            whether a classifier can tell new rows from training rows
smooth_calibration      a calibration curve without bins
splines                 restricted cubic splines: smooth curves that are straight beyond their outer knots
survey_weights          figures of a model with survey weights
"""
