// SPDX-License-Identifier: Apache-2.0

import { formatReport, hasFaults, inspectTarget, openTarget } from '#inspect'
import { journalWarnings, type NodeOptions, openNode } from './node.ts'

export type InspectOptions = NodeOptions & { readonly json: boolean }

export type InspectPage = {
  readonly lines: readonly string[]
  readonly warnings: readonly string[]
  /** False where something differs from the journal. */
  readonly complete: boolean
}

/** Looks at a container's network from both sides. */
export async function inspect(text: string, options: InspectOptions): Promise<InspectPage> {
  await using node = openNode(options)
  using target = openTarget(text, node.journal)
  const report = await inspectTarget(target, node.host, node.world)
  return {
    lines: options.json ? [JSON.stringify(report, undefined, 2)] : formatReport(report),
    warnings: journalWarnings(node, options),
    complete: !hasFaults(report),
  }
}
