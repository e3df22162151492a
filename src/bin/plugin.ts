// SPDX-License-Identifier: Apache-2.0

// One plugin call in one process: environment and stdin in, stdout and exit code out, as the CNI specification says.
// The arguments: the plugin's type, and the descriptor of the lock that says that this call has begun (shim/shim.c).

import { exitAtOnce } from '#libc'
import { runPlugin } from './one-shot.ts'

// No await here: this file is bundled as CommonJS.
runPlugin(process.argv[2] ?? '', process.env, process.argv[3]).then(code => {
  // What was compiled is kept for the next call; V8 would need some milliseconds more to put its heap away, for nobody.
  globalThis.keepCompiled?.(code === 0)
  exitAtOnce(code)
})
