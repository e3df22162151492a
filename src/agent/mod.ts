// SPDX-License-Identifier: Apache-2.0

// agent: the one process per node: socket server, lanes, spool, reconciliation. It decides when a plugin runs, not what
// a plugin does.

export { type Agent, type AgentOptions, startAgent } from './agent.ts'
export { lockDataDirectory } from './lock.ts'
export { createLogger } from './log.ts'
export { type Serving, startServing } from './serving.ts'
export { isSpoolEntry, spoolOf } from './spool.ts'
export { encodeRequest } from './wire.ts'
