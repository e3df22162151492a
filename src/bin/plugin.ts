// SPDX-License-Identifier: Apache-2.0

// One plugin call in one process: environment and stdin in, stdout and exit code out, as the CNI specification says.
// The argument is the plugin's type.

import { runPlugin } from './one-shot.ts'

// No await here: this file is bundled as CommonJS.
runPlugin(process.argv[2] ?? '', process.env).then(code => {
  process.exitCode = code
})
