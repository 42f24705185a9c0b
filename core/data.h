/* data.h - what is shipped with the engine: the data folder, and the embedded models in it by name.
 *
 * The folder is $LAPIDARY_DATA; else it is looked for from where this code lies, the program or the shared library:
 * ../data (a build in the source tree), ../share/lapidary (an installation, also from lib/ARCHITECTURE), and at last in
 * the source tree it was built from.
 */
#ifndef LP_CORE_DATA_H
#define LP_CORE_DATA_H

#include "core/base.h"

/* The embedded model that stands in where none is named. */
#define LP_EMBEDDED_BASE "base"

/* The path of NAME in the data folder; *out is yours to free.  LP_E_NOT_FOUND: it is in none of the places. */
lp_status lp_data_path(char **out, const char *name, lp_error *err);

/* What to hand to lp_model_open for a name as typed: the path of an embedded model for "base", "chat", "draft" and
 * "shield" (unless a file or folder of that name is here), anything else as it is.  typed NULL: the embedded model
 * `embedded`.  *out is yours to free. */
lp_status lp_model_name(char **out, const char *typed, const char *embedded, lp_error *err);

/* Is `path` the embedded model of that name, however it was spelled? */
bool lp_is_embedded(const char *path, const char *name);

#endif
