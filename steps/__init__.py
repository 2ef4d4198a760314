"""The entry points of MLProject, one file each; rooms hold what they are made of.

drift       is this new data still what the champion knows, and what is to be done if it is not?
evaluate    measure one model on the test split
explore     look at a data set before anything is fitted to it
main        the chain: preprocess, train, tune, evaluate (tuned and baseline), promote
preprocess  check rows against the schema
promote     judge a model against champion and anchor and move @champion
score       risk for every row of a file, a folder or a glob, with the champion or a model that is named
train       fit one model of a chosen family
tune        search families and hyperparameters
"""
