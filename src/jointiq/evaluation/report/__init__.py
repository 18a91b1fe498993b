"""One HTML file that shows where models stand: plots, tables, images and a viewer; nothing is loaded from elsewhere."""
