"""FCOS with a ResNet-18 from scratch on blood cells (BCCD in COCO's format), 320 x 240 pixels."""

default_scope = "mmdet"
classes = ("RBC", "WBC", "Platelets")  # as in the annotations: mmdet counts labels in their order
data_root = "data/bccd/"

model = dict(
    type="FCOS",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type="ResNet", depth=18, num_stages=4, out_indices=(1, 2, 3), frozen_stages=-1, norm_eval=False),
    neck=dict(type="FPN", in_channels=[128, 256, 512], out_channels=128, num_outs=3),
    bbox_head=dict(
        type="FCOSHead",
        num_classes=3,
        in_channels=128,
        feat_channels=64,
        stacked_convs=1,
        strides=[8, 16, 32],
        norm_cfg=dict(type="GN", num_groups=16, requires_grad=True),
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        center_sampling=True,
        centerness_on_reg=True,
        norm_on_bbox=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=300, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=(320, 240), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(240, 320), allow_negative_crop=True),
    dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(320, 240), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]


def split(name, pipeline, **settings):
    """Return the data set of one split."""
    return dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file=f"annotations/instances_{name}.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=pipeline,
        **settings,
    )


train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=split("train", train_pipeline, filter_cfg=dict(filter_empty_gt=True)),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=split("val", test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=split("test", test_pipeline, test_mode=True),
)
val_evaluator = dict(type="CocoMetric", ann_file=data_root + "annotations/instances_val.json", metric="bbox")
test_evaluator = dict(type="CocoMetric", ann_file=data_root + "annotations/instances_test.json", metric="bbox")

train_cfg = dict(type="IterBasedTrainLoop", max_iters=1200, val_interval=1200)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="Bfloat16OptimWrapper",  # pdiff's: mixed precision on any device
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", T_max=1100, by_epoch=False, begin=100, end=1200, eta_min=1e-5),
]
default_hooks = dict(logger=dict(type="LoggerHook", interval=50))
visualizer = dict(type="DetLocalVisualizer", vis_backends=[], name="visualizer")
log_processor = dict(by_epoch=False)
