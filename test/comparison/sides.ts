// SPDX-License-Identifier: Apache-2.0

// The two sides of the comparison: a node each with the same segment, ours through an agent, and the reference's current
// executables (lab/peers). A case makes its calls without knowing which side it is on.

import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  type Attachment,
  type CallOptions,
  cniBin,
  folder,
  makeLab,
  type Node,
  type Outcome,
  start,
  type Verb,
} from '../nodelab.ts'

export type Side = {
  readonly name: 'ours' | 'theirs'
  readonly node: Node
  call(verb: Verb, attachment: Attachment, options?: CallOptions): Promise<Outcome>
  /** Where the plugins of this side lie. */
  readonly path: string
}

/** Ours: installed executables and an agent, which ends with the test file. */
export async function ourSide(): Promise<Side> {
  const node = makeLab({ mode: 'agent' }).nodes[0]!
  await node.startAgent()
  return { name: 'ours', node, path: cniBin(), call: node.call }
}

/** Theirs, run in the namespace of the node. */
export function theirSide(path: string): Side {
  const node = makeLab({ mode: 'standalone' }).nodes[0]!
  const call: Side['call'] = (verb, attachment, { more, ...execution } = {}) => {
    const { containerId, netns, ifName = 'eth0', config = {}, type = '' } = attachment
    return start(['/usr/bin/nsenter', `--net=${node.path}`, join(path, type)], {
      ...execution,
      stdin: typeof config === 'string' ? config : JSON.stringify({ ...config, ...more }),
      env: {
        PATH: process.env['PATH'] ?? '',
        CNI_COMMAND: verb,
        CNI_CONTAINERID: containerId,
        CNI_NETNS: netns,
        CNI_IFNAME: ifName,
        CNI_PATH: path,
        ...execution.env,
      },
    }).outcome
  }
  return { name: 'theirs', node, path, call }
}

/** An IPAM plugin that gives no address, and writes down how it was called. @returns its directory and that file */
export function emptyIpam(): { directory: string; calls: string } {
  const directory = folder('fake')
  const calls = join(directory, 'calls')
  const file = join(directory, 'empty-ipam')
  writeFileSync(
    file,
    `#!/bin/sh\necho $CNI_COMMAND >> ${calls}\n[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0"}'\nexit 0\n`,
  )
  chmodSync(file, 0o755)
  return { directory, calls }
}
