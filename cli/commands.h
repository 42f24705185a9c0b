/* commands.h - one line per command; each is defined in cmd_NAME.c and listed in main.c's table. */
#ifndef LP_CLI_COMMANDS_H
#define LP_CLI_COMMANDS_H

#include "cli/cli.h"

extern const cli_command cmd_info;
extern const cli_command cmd_hooks;
extern const cli_command cmd_tokenize;
extern const cli_command cmd_generate;
extern const cli_command cmd_chat;
extern const cli_command cmd_trace;
extern const cli_command cmd_lens;
extern const cli_command cmd_features;
extern const cli_command cmd_extract;
extern const cli_command cmd_merge;
extern const cli_command cmd_feature;
extern const cli_command cmd_export;
extern const cli_command cmd_label;
extern const cli_command cmd_sae;
extern const cli_command cmd_steer;
extern const cli_command cmd_recipe;
extern const cli_command cmd_rank;
extern const cli_command cmd_attribute;
extern const cli_command cmd_patch;
extern const cli_command cmd_sweep;
extern const cli_command cmd_replay;
extern const cli_command cmd_bench;
extern const cli_command cmd_synth;
extern const cli_command cmd_verify;
extern const cli_command cmd_index;
extern const cli_command cmd_query;
extern const cli_command cmd_store;

#endif
