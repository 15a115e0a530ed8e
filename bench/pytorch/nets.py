"""The four example networks in PyTorch, with the parameter names and layouts of `cifar --net`.

Shared by the speed comparison (bench/compare_pytorch.py) and the golden training losses
(tests/golden/train_losses.py), so that both sides of every comparison are one definition.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Tutorial(nn.Module):
    """The net of PyTorch's and DeepSpeed's CIFAR-10 tutorials: 62,006 parameters."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return self.fc3(F.relu(self.fc2(x)))


class Mlp(nn.Module):
    """3072 -> 512 -> 512 -> 10 with ReLU."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3072, 512)
        self.fc2 = nn.Linear(512, 512)
        self.fc3 = nn.Linear(512, 10)

    def forward(self, x):
        # Row-major (channel, y, x) order whatever the memory format of the batch.
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


class Vgg(nn.Module):
    """3x3 convolutions 32 32 | 64 64 | 128 128, 2x2 max pool after each pair, 2048 -> 256 -> 10."""

    def __init__(self):
        super().__init__()
        widths = [3, 32, 32, 64, 64, 128, 128]
        for i in range(6):
            self.add_module(f"conv{i + 1}", nn.Conv2d(widths[i], widths[i + 1], 3, padding=1))
        self.fc1 = nn.Linear(2048, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.max_pool2d(x, 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(x, 2)
        x = F.relu(self.conv6(F.relu(self.conv5(x))))
        x = F.max_pool2d(x, 2)
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


class BasicBlock(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if width_in != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet20(nn.Module):
    """He et al. 2015, section 4.2, n = 3; torchvision's names; 1x1 projections with batch norm."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width_in = 16
        for stage, width in enumerate([16, 32, 64]):
            blocks = []
            for i in range(3):
                blocks.append(BasicBlock(width_in, width, 2 if stage and i == 0 else 1))
                width_in = width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


NETS = {"tutorial": Tutorial, "mlp": Mlp, "vgg": Vgg, "resnet20": ResNet20}


def make(name, seed=0):
    """A net with PyTorch's own default initialisation, the same for equal seeds."""
    torch.manual_seed(seed)
    return NETS[name]()
