/* What was measured, for people and for programs; both on stdout. */
#ifndef TOOLS_STOATPERF_REPORT_H
#define TOOLS_STOATPERF_REPORT_H

#include "tools/stoatperf_load.h"

/* What is about to be run against whom; one line. */
void report_scenario(const struct load *load);

void report_interval(const struct interval *interval);

/* Each phase, and whether the run is void. */
void report_text(const struct load *load);

/* Everything, as one JSON document. */
void report_json(const struct load *load);

#endif
