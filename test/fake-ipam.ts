// SPDX-License-Identifier: Apache-2.0

// An IPAM plugin that is a script, for tests of what others ask it.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cniBin, folder, type Verb } from './nodelab.ts'

export type FakeIpam = {
  /** For the configuration. */
  readonly more: { readonly ipam: { readonly type: string } }
  /** For the call, which finds the plugin by them. */
  readonly options: { readonly env: { readonly CNI_PATH: string } }
  /** The verbs that it was called with. */
  calls(): string[]
  /** From now on no verb fails. */
  repair(): void
}

/**
 * @param answer the result of ADD; undefined: ADD fails
 * @param failing a verb that fails
 */
export function fakeIpam(answer: object | undefined, failing?: Verb): FakeIpam {
  const directory = folder('fake')
  const log = join(directory, 'calls')
  const fail = `echo '{"code": 11, "msg": "no", "details": "later"}'; exit 1`
  const add = answer === undefined ? fail : `echo '${JSON.stringify({ cniVersion: '1.1.0', ...answer })}'`
  const write = (failure: string) =>
    writeFileSync(
      join(directory, 'fake-ipam'),
      `#!/bin/sh\necho $CNI_COMMAND >> ${log}\ncase $CNI_COMMAND in ADD) ${add};; ${failure} esac\n`,
      { mode: 0o755 },
    )
  write(failing === undefined ? '' : `${failing}) ${fail};;`)
  return {
    more: { ipam: { type: 'fake-ipam' } },
    options: { env: { CNI_PATH: `${directory}:${cniBin()}` } },
    calls: () => readFileSync(log, 'utf8').trim().split('\n'),
    repair: () => write(''),
  }
}
