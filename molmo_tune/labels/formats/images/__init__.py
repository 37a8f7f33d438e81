"""Files about single images: LabelMe, Pascal VOC, YOLO, DOTA and others."""
