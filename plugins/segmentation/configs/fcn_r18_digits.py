"""An FCN with a narrow ResNet-18 for scenes of handwritten digits, 96 x 96 pixels; `data_root` is their folder.

Nine in ten pixels are background, which hides from the network for a thousand steps that digits differ. An auxiliary
head on a coarse level, in whose loss the background hardly counts, brings that down to a hundred.
"""

default_scope = "mmseg"
classes = ("background", *"0123456789")
palette = [[0, 0, 0]] + [[(37 * k) % 256, (91 * k) % 256, (173 * k) % 256] for k in range(1, 11)]
data_root = ""

norm_cfg = dict(type="BN", requires_grad=True)


def head(level, background):
    """Return a head on one level of the pyramid, in whose loss a pixel of the background has a weight."""
    return dict(
        type="FCNHead",
        in_channels=64,
        in_index=level,
        channels=64,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type="CrossEntropyLoss", use_sigmoid=False, class_weight=[background] + [1.0] * 10, loss_weight=1.0
        ),
    )


model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[127.5, 127.5, 127.5],
        std=[64.0, 64.0, 64.0],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(96, 96),
    ),
    backbone=dict(
        type="ResNetV1c",
        depth=18,
        stem_channels=32,
        base_channels=32,
        num_stages=4,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style="pytorch",
        contract_dilation=True,
    ),
    neck=dict(type="FPN", in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4),
    decode_head=head(level=0, background=0.5),
    auxiliary_head=head(level=1, background=0.03),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(96, 96), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(96, 96)),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def split(name, pipeline, **settings):
    """Return the data set of one split."""
    return dict(
        type="BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path=name, seg_map_path=f"{name}_labels"),
        img_suffix=".png",
        seg_map_suffix=".png",
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
    batch_size=25,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=split("select", test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=25,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=split("test", test_pipeline, test_mode=True),
)
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=1600, val_interval=1600)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", T_max=1550, by_epoch=False, begin=50, end=1600, eta_min=1e-5),
]
default_hooks = dict(logger=dict(type="LoggerHook", interval=50))
visualizer = dict(type="SegLocalVisualizer", vis_backends=[], name="visualizer")
log_processor = dict(by_epoch=False)
