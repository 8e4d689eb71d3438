"""The trial of a claim: what it takes and costs, in which order it is measured, when it may stop."""
