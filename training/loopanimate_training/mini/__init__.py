"""The bundled mini model, from packaged stickers to one bundle file."""
