"""How well counterfactual answers foretell training without some samples."""
