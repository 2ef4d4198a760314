"""The chain around the steps: parameters, fingerprints, reuse, the tracking store and the registry.

values          the typed parameters of every entry point
parameters      reading those values from texts, and writing them
pipeline        the steps (STEPS), whether an earlier run can be reused, and how a step is run
process         the process of one step, from its command line to its exit code
context         the input and the result of a step's work
fingerprint     everything that a result depends on
keep_model      a fitted model as a run keeps it
chosen_model    the model that scores rows or is compared with new rows
tracking        the tracking store: connecting to it, finding runs and their artifacts
champion        the champion and the anchor of a registered model: finding, loading, replacing them
approval        a person promotes an undecided candidate
recalibrate     the champion with intercept and slope fitted on new labels
rollback        back to @previous, and the models that a person rolled back
attempts        the record of change: every attempt to replace a champion
verdict         the outcome of a promotion, in verdict.json
prevalence      the share of outcomes compared with the champion's data
registry        versions of a model and their aliases
locks           one chain at a time in a store
console         messages on the console
"""
