// SPDX-License-Identifier: Apache-2.0

// inspect: what an operator looks at, and does, by hand: a container's network on one page, and NICs moved to and fro.
// Reads what other rooms know; changes nothing but what the command names.

export { bringNicBack, giveNicAway } from './nic.ts'
export { formatReport } from './page.ts'
export { hasFaults, inspectTarget, type Report } from './report.ts'
export { containerOf, openTarget, type Target } from './target.ts'
