"""An FCN with a narrow ResNet-18 from scratch on road scenes (CamVid, 11 classes, label 11 ignored), 240 x 180 pixels.

The loss weights the classes by the inverse root of their frequency: poles, signs and cyclists are rare.
"""

default_scope = "mmseg"
classes = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
palette = [
    [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0], [192, 128, 128],
    [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
]  # fmt: skip
data_root = "data/camvid/"

norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[104.0, 106.0, 108.0],
        std=[73.0, 75.0, 74.0],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=11,
        size=(160, 224),
        test_cfg=dict(size_divisor=8),
    ),
    backbone=dict(
        type="ResNetV1c",
        depth=18,
        stem_channels=32,
        base_channels=32,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=norm_cfg,
        norm_eval=False,
        contract_dilation=True,
    ),
    neck=dict(type="FPN", in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4),
    decode_head=dict(
        type="FCNHead",
        in_channels=64,
        in_index=0,
        channels=64,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        ignore_index=11,
        loss_decode=dict(
            type="CrossEntropyLoss",
            use_sigmoid=False,
            class_weight=[0.34, 0.29, 1.42, 0.25, 0.67, 0.45, 1.3, 1.33, 0.58, 1.76, 2.61],
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(240, 180), ratio_range=(0.75, 1.75), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(160, 224), cat_max_ratio=0.75, ignore_index=11),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def split(name, pipeline, **settings):
    """Return the data set of one split."""
    return dict(
        type="BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path=f"images/{name}", seg_map_path=f"labels/{name}"),
        img_suffix=".jpg",
        seg_map_suffix=".png",
        ignore_index=11,
        metainfo=dict(classes=classes, palette=palette),
        pipeline=pipeline,
        **settings,
    )


train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=split("train", train_pipeline),
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
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"], ignore_index=11)
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=2000, val_interval=2000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="Bfloat16OptimWrapper",  # pdiff's: mixed precision on any device
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="PolyLR", power=0.9, by_epoch=False, begin=100, end=2000, eta_min=1e-5),
]
default_hooks = dict(logger=dict(type="LoggerHook", interval=50))
visualizer = dict(type="SegLocalVisualizer", vis_backends=[], name="visualizer")
log_processor = dict(by_epoch=False)
