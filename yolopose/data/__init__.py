"""Images and labels: COCO's layout, the drawn set, augmentation, loading. No network and no score lives here."""
