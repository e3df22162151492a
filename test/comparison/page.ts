// SPDX-License-Identifier: Apache-2.0

import type { Case } from './cases.ts'

/** What a fault says, short enough for a table and without what differs from run to run. */
const inShort = (fault: string) =>
  fault
    .replaceAll(/nl\d+-\w+: /g, '')
    .replaceAll(/(\/run\/netns\/)?nl\d+-\w*/g, 'NETNS')
    .replaceAll(/\/tmp\/mooring-nodelab-\w+\/node-\d+\//g, '…/')
    .replaceAll(/\s+/g, ' ')
    .replaceAll('|', '\\|')
    .slice(0, 160)

/** The page docs/comparison.md: each case with the plugins of the reference that fail it. Ours passed all, or the run failed. */
export function comparisonPage(
  cases: readonly Case[],
  faults: ReadonlyMap<string, string>,
  { PEERS_VERSIONS: versions = '' }: NodeJS.ProcessEnv,
): string {
  const rows = cases.flatMap(({ name, plugins, theirsRight = [] }) => {
    const wrong = plugins.filter(type => !theirsRight.includes(type))
    const shown = wrong.map(type => {
      const fault = faults.get(`${type}: ${name}`)
      return `| ${name} | \`${type}\` | ${fault === undefined ? 'this kernel has no ipvlan; shown under that of lab/vmlab' : inShort(fault)} |`
    })
    return shown.length > 0 ? shown : []
  })
  const right = cases.flatMap(({ name, theirsRight = [] }) =>
    theirsRight.length > 0 ? [`- ${name}: ${theirsRight.map(type => `\`${type}\``).join(', ')}`] : [],
  )
  return `# Beside the reference's plugins

Written by \`./mooring test --docs comparison\`, which runs every case against both: ours, and the reference's current
executables (${versions}). Ours pass them all. One line alone:

\`\`\`
./mooring test comparison --name '^macvlan: GC frees'
\`\`\`

## What the reference's plugins do not do

| what is wanted | plugin | what is seen with the reference |
|---|---|---|
${rows.join('\n')}

## What both do

${right.join('\n')}
`
}
