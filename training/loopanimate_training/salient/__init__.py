"""The salient-object network behind `loopanimate_core.picture.saliency`: data, training and export."""
