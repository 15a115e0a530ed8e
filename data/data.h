// All of data that a training program needs.
#pragma once

#include "data/cifar10.h"
#include "data/loader.h"
#include "data/synthetic.h"
