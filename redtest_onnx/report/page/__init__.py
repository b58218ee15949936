"""The report page: one model, one template, readable JavaScript of our own, no request to anywhere."""
