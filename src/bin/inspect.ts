// SPDX-License-Identifier: Apache-2.0

import { formatReport, hasFaults, inspectTarget, openTarget } from '#inspect'
import { type NodeOptions, openNode } from './node.ts'

export type InspectOptions = NodeOptions & { readonly json: boolean }

/** Looks at a container's network from both sides. `complete` is false where something differs from the journal. */
export async function inspect(text: string, options: InspectOptions): Promise<{ lines: string[]; complete: boolean }> {
  await using node = openNode(options)
  using target = openTarget(text, node.journal)
  const report = await inspectTarget(target, node.host, node.world)
  return {
    lines: options.json ? [JSON.stringify(report, undefined, 2)] : formatReport(report),
    complete: !hasFaults(report),
  }
}
