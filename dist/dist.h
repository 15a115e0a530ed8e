// All of dist that a training program needs.
#pragma once

#include "dist/engine.h"
#include "dist/job.h"
#include "dist/launch.h"
#include "dist/stop_signals.h"
