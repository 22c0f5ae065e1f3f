"""The studies of RAI: data, nets, methods and what is asked of them."""
