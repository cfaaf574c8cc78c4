"""mmdet's Faster R-CNN R50 on blood cells (BCCD in COCO's format), 640 x 480 pixels, from torchvision's weights."""

_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"

classes = ("RBC", "WBC", "Platelets")  # as in the annotations: mmdet counts labels in their order
data_root = "data/bccd/"
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(640, 480), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(640, 480), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]


def split(name, pipeline):
    """Return what a split's data set has of its own."""
    return dict(
        data_root=data_root,
        ann_file=f"annotations/instances_{name}.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=pipeline,
    )


train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=split("train", train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=split("val", test_pipeline))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=split("test", test_pipeline))
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = dict(ann_file=data_root + "annotations/instances_test.json")
