"""Training data: `readers` list a data set, `index` checks its clips, `loader` makes batches of them."""
