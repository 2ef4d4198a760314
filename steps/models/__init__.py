"""Model families, fitting, search, scoring, and what a saved model is.

candidate             a candidate for promotion on its test rows
cross_validation      what a trial of the tuning measures: k-fold cross-validation on the training rows
estimators            one fit of a model of any family
explainable_boosting  the glass box
families              the model families: their hyperparameters, and what every model offers
fitting               from hyperparameters to a model that can be served
missing_answers       training for missing answers
monitor_reference     `reference.json`
other_schema          ask a model about rows of another schema
pipelines             families of scikit-learn
preference            choose between the best models of the families
reasons               reasons for many risks at once, as columns of a table
recalibration         a model whose risks were recalibrated by intercept and slope
saved                 a fitted model as a folder
scoring               risk for every row of files of any size
search                search over families and hyperparameters
search_workers        worker processes of a search
served_model          the code that answers a prediction
spark_scoring         scoring on a Spark cluster, for data too large for one machine
spark_search          the search on a Spark cluster, through hyperopt's SparkTrials
spark_session         a Spark session whose executors know this project's code
terms                 the writer of `terms.json`, the document of a glass box
trials                the trials of a search, and how a tracking store holds them
"""
