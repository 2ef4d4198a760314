"""The chain around the steps: parameters, fingerprints, reuse, the tracking store and the registry.

values          the typed parameters of every entry point
parameters      from what a person types to those values, and back
pipeline        what each step is (STEPS), whether an earlier run can serve, and how one is run
process         one step's process, from its command line to its exit code
context         what a step's work is given and gives back
fingerprint     what a result depends on
keep_model      a fitted model as a run keeps it
chosen_model    the model that scores rows or is compared with
tracking        the tracking store: reaching it, finding runs and their artifacts
champion        the champion and the anchor of a registered model: finding, loading, replacing them
approval        a person promotes an undecided candidate
recalibrate     the champion with intercept and slope fitted on new labels
rollback        back to @previous, and the models that a person rolled back
attempts        every attempt to replace a champion, a document each in the store
verdict         what came of a candidate, in verdict.json
prevalence      whether the share of outcomes is that of the champion's data
registry        versions of a model and their aliases
locks           one chain at a time in a store
console         what a person sees of messages
"""
