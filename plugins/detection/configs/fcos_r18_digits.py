"""A small FCOS for scenes of handwritten digits, 128 x 128 pixels; `data_root` is their folder."""

default_scope = "mmdet"
classes = tuple("0123456789")
data_root = ""

model = dict(
    type="FCOS",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[127.5, 127.5, 127.5],
        std=[64.0, 64.0, 64.0],
        bgr_to_rgb=True,
        pad_size_divisor=16,
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=40,
        base_channels=40,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        frozen_stages=-1,
        norm_eval=False,
        style="pytorch",
    ),
    neck=dict(type="FPN", in_channels=[80, 160], out_channels=64, num_outs=2),
    bbox_head=dict(
        type="FCOSHead",
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=1,
        strides=[8, 16],
        regress_ranges=((-1, 36), (36, 1e8)),
        norm_cfg=dict(type="GN", num_groups=16, requires_grad=True),
        center_sampling=True,
        centerness_on_reg=True,
        norm_on_bbox=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PhotoMetricDistortion"),
    dict(type="RandomAffine", max_rotate_degree=0.0, max_shear_degree=0.0, scaling_ratio_range=(0.8, 1.2)),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(128, 128), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]


def split(name, pipeline, **settings):
    """Return the data set of one split."""
    return dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file=f"{name}.json",
        data_prefix=dict(img=f"{name}/"),
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
    batch_size=50,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=split("select", test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=split("test", test_pipeline, test_mode=True),
)
val_evaluator = dict(type="CocoMetric", ann_file="select.json", metric="bbox")
test_evaluator = dict(type="CocoMetric", ann_file="test.json", metric="bbox")

train_cfg = dict(type="IterBasedTrainLoop", max_iters=850, val_interval=850)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", T_max=750, by_epoch=False, begin=100, end=850, eta_min=1e-5),
]
default_hooks = dict(logger=dict(type="LoggerHook", interval=50))
visualizer = dict(type="DetLocalVisualizer", vis_backends=[], name="visualizer")
log_processor = dict(by_epoch=False)
