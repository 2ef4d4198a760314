"""The entry points of MLProject, one file each; the folders hold the modules that they use.

drift       compare new data with the champion's training data, and say what to do
evaluate    measure one model on the test split
explore     look at a data set before anything is fitted to it
main        the chain: preprocess, train, tune, evaluate (tuned and baseline), promote
preprocess  check rows against the schema
promote     judge a model against champion and anchor and move @champion
score       the risk of every row of a file, a folder or a glob, by the champion or a named model
train       fit one model of a chosen family
tune        search families and hyperparameters
"""
