"""Model families, fitting, search, scoring, and what a saved model is.

candidate             A candidate for promotion on its test rows
cross_validation      what a trial of the tuning measures: k-fold cross-validation on the training rows
estimators            one fit of one model of any family
explainable_boosting  the glass box
families              the model families, what each can be told, and what all their models can be asked
fitting               from hyperparameters to a model that can be served
missing_answers       training for missing answers
monitor_reference     `reference.json`
other_schema          ask a model about rows of a schema that is not its own
pipelines             families of scikit-learn
preference            which of the best models of each family is kept
reasons               reasons of many risks at once, as columns of a table
recalibration         A model whose risks were recalibrated by intercept and slope
saved                 A fitted model as a folder
scoring               risk for every row of files of any size
search                search over families and hyperparameters
search_workers        worker processes of a search
served_model          what answers a prediction
spark_scoring         scoring on a Spark cluster: for rows that one machine cannot get through in time
spark_search          the search on a Spark cluster, through hyperopt's SparkTrials
spark_session         A Spark session whose executors know this project's code
terms                 the writer of `terms.json`, the document that a glass box is
trials                the trials of a search: what one is, and how a tracking store holds it
"""
