"""The architectures of ``keras.applications``, at the smallest width that each one offers."""

from collections.abc import Callable

from keras import applications

from experiments.architectures.example import CLASSES, IMAGE, Example, images

_OPTIONS = {"weights": None, "input_shape": IMAGE, "classes": CLASSES, "classifier_activation": None}


def _mobilenet() -> Example:
    return images(applications.MobileNet(alpha=0.25, **_OPTIONS), -1.0, 1.0)


def _mobilenet_v2() -> Example:
    return images(applications.MobileNetV2(alpha=0.35, **_OPTIONS), -1.0, 1.0)


def _mobilenet_v3_small() -> Example:
    return images(applications.MobileNetV3Small(alpha=0.75, **_OPTIONS))


def _mobilenet_v3_small_minimalistic() -> Example:
    return images(applications.MobileNetV3Small(alpha=0.75, minimalistic=True, **_OPTIONS))


def _efficientnet_v2_b0() -> Example:
    return images(applications.EfficientNetV2B0(**_OPTIONS))


def _resnet50_v2() -> Example:
    return images(applications.ResNet50V2(**_OPTIONS), -1.0, 1.0)


def _densenet121() -> Example:
    return images(applications.DenseNet121(**_OPTIONS), -1.0, 1.0)


def _convnext_tiny() -> Example:
    return images(applications.ConvNeXtTiny(**_OPTIONS))


def _nasnet_mobile() -> Example:
    return images(applications.NASNetMobile(**_OPTIONS), -1.0, 1.0)


APPLICATIONS: dict[str, Callable[[], Example]] = {
    "MobileNet": _mobilenet,
    "MobileNetV2": _mobilenet_v2,
    "MobileNetV3Small": _mobilenet_v3_small,
    "MobileNetV3Small, minimalistic": _mobilenet_v3_small_minimalistic,
    "EfficientNetV2B0": _efficientnet_v2_b0,
    "ResNet50V2": _resnet50_v2,
    "DenseNet121": _densenet121,
    "ConvNeXtTiny": _convnext_tiny,
    "NASNetMobile": _nasnet_mobile,
}
