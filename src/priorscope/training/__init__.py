"""A kernel, data and a Training -> functions along training, their ensemble, and really trained networks."""
