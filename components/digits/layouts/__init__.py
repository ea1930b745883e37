"""The layouts of the public data sets, one module each: `write(config, folder)` fills a folder."""
