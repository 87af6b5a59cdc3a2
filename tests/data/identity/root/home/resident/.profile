# of the image
