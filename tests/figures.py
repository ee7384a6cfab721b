"""A small table of published figures, for golden outputs: the shipped one grows."""

from __future__ import annotations

SMALL = """\
recipe,model,variant,top1,top5,epochs,minutes,hardware,inferred_minutes,n,sd,resolution,protocol,source,verified,note
baseline,resnet50,,76.9,,90,100,8x A100-80GB,,,,256/224,,a log,submitted log,
mild,resnet50,short,76.0,93.1,30,30,8x A100 (p4d),,,,,EMA,a page,vendor claim,
mild,resnet50,,76.8,93.1,40,40,8x A100 (p4d),,,,,EMA,a page,vendor claim,
mild,resnet50,a range,75-78,,< 60,,,,,,,EMA,a blog,vendor claim,
medium,resnet50,,78.4,,,60,8x A100,,,,,EMA,a summary,UNVERIFIED,
sgd,resnet50,,77.4,,90,300,4x A40,95,3,0.1,,,a table,source's own table,
onecycle,resnet50,,75.3,,50,1752,1x A10G,,,,,,a log,source's own log,
lars,resnet50,,75.9,,,29,8x A100,,,,,,a log,"target, not a final figure",
lars,resnet50,,75.9,,,14.5,8x H100 (DGX),,,,,,a log,"target, not a final figure",
flip_40,resnet50,,77.0,,40,40,8x A100,,,,256,"TTA (flip), 256 px eval",a log,source's own log,
flip_80,resnet50,,78.4,,80,80,8x A100,,,,256,"TTA (flip), 256 px eval",a log,source's own log,
flip_90,resnet50,,78.4,,90,90,8x A100,,,,256,"TTA (flip), 256 px eval",a log,source's own log,
small,resnet18,,66.9,,16,5,8x A100,,,,256,"TTA (flip), 256 px eval",a table,source's own table,
"""
