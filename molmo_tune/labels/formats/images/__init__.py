"""Labels of single images: LabelMe, Pascal VOC, YOLO, DOTA and others."""
