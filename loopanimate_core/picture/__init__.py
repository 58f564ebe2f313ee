"""Still pictures: reading, fitting, the salient object, folders of them."""
