/* hub.h - from what a person types to a place on disk.
 *
 *   ./some/folder            a folder with config.json + safetensors
 *   ./file.gguf              a GGUF file
 *   google/gemma-2-2b        a Hub id: looked for in the Hugging Face cache, never on the network
 *   owner/repo:file.gguf     one GGUF file of a Hub repository
 *
 * Cache layout (huggingface_hub): $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
 * ~/.cache/huggingface/hub; in it models--OWNER--NAME/{refs/main, snapshots/REVISION/...}; refs/main holds the revision.
 */
#ifndef LP_CORE_HUB_H
#define LP_CORE_HUB_H

#include "core/base.h"

/* The place on disk of `name`; *out is yours to free.  An id may end in @REVISION (a ref or a commit).
 * When it is not in the cache: LP_E_NOT_FOUND, and the text holds the exact `hf download ...` line that would get it. */
lp_status lp_hub_find(char **out, const char *name, lp_error *err);

/* The file `file` (may hold '/') of repository `repo`; repo type "models".  Later floors look up SAEs with this. */
lp_status lp_hub_file(char **out, const char *repo, const char *file, lp_error *err);

/* The folder of repository `repo` at its main revision, whatever is in it.  LP_E_NOT_FOUND: the cache does not have it. */
lp_status lp_hub_snapshot(char **out, const char *repo, lp_error *err);

/* The cache folder in force; yours to free. */
char *lp_hub_cache(void);

#endif
