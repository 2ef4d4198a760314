"""Statistics of rows, risks and outcomes: pure functions and typed documents, no I/O, no MLflow.

associations            how strongly columns go together
bins                    columns as small whole numbers
catalogue               every measure of an evaluation
comparison              a model on test rows, alone and beside another, with standard errors
concordance             what ROC AUC a model's own risks promise
curves                  what the figures of a report are drawn from
decisions               what a decision threshold means
delong                  DeLong's variance of ROC AUC, for one score or for two scores of the same rows
drift                   whether new data are still what a model knows, and what to do if they are not
drift_document          `drift.json` as a typed document
drift_performance       how good a model is on new people
drift_shifts            shifts of features and of predicted risks
drift_verdict           what a difference between new data and a model's asks for: verdict, reasons, advice
evaluation              evaluation of one model on one set of rows
evaluation_document     `evaluation.json`: what is known of one model on one set of rows, as a typed document
evidence                the numpy reference of the Prometheus rules: drift and performance from counts
exploration             what a data set looks like before anybody fits a model to it
exploration_columns     who stands at which level of a column, in which subgroup and file
exploration_document    `exploration.json` as a typed document
exploration_prediction  what predicts: each column alone, each pair, and what each adds to all others
groups                  figures of the schema's subgroups, and calibration where two of them meet
importance              permutation importance: how much a model's ranking loses when one column is shuffled
instrument              does one column look as if it were measured with another scale, or from another zero?
intervals               95 % intervals in closed form, each with the name under which a report shows it
logistic                logistic regression of a few columns by Newton's method, with its covariance
metrics                 metrics of a risk of a binary outcome
missing_answers         how good a model is when one answer is missing
oddities                what a numeric column may hide
outcome_levels          how a model judges people by their answer to the question of the outcome
point_scores            point scores on the same rows as the model
promotion               whether a model may replace the champion
recalibration           recalibration of risks by two numbers
repeated_people         people who are counted several times
row_order               whether rows stand in random order
scored_rows             rows with their outcomes and the risks that a model gives them
selection               figures of late labels, weighted by how completely each score bin is labelled
separability            can new rows be told from training rows?
smooth_calibration      a calibration curve without bins
splines                 restricted cubic splines: smooth curves that are straight beyond their outer knots
survey_weights          figures of a model with each row counted as the people that it stands for
"""
