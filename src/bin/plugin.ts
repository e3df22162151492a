// SPDX-License-Identifier: Apache-2.0

// One plugin call in one process: environment and stdin in, stdout and exit code out, as the CNI specification says.
// The argument is the plugin's type.

import { runPlugin } from './one-shot.ts'

process.exitCode = await runPlugin(process.argv[2] ?? '', process.env)
