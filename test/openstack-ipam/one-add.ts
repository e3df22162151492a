// SPDX-License-Identifier: Apache-2.0

// One ADD on a node of its own process, which a test kills: its argument says where, and with what configuration.

import { nodeWithNic, startNode } from './node.ts'

const { directory, ipam, longLived, containerId } = JSON.parse(process.argv[2]!)
const node = startNode({ directory, host: nodeWithNic('', 'fa:16:3e:00:00:09'), longLived })
const reply = await node.call('ADD', containerId, ipam)
process.stdout.write(reply.stdout)
await node[Symbol.asyncDispose]()
