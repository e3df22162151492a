// SPDX-License-Identifier: Apache-2.0
import { isObject } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'

/** What a Neutron can do beyond its core, by alias: `extraroute-atomic`, `revision-if-match`, `standard-attr-tag`. */
export type Extensions = {
  /** Asked once per session: extensions change only when Neutron is restarted. */
  aliases(limits: Limits): Promise<ReadonlySet<string>>
}

export function extensions(service: Service): Extensions {
  let known: ReadonlySet<string> | undefined
  return {
    async aliases(limits) {
      if (known !== undefined) return known
      const answer = await service.ask({ action: 'list extensions', method: 'GET', path: '/extensions' }, limits)
      const list = answer.body['extensions']
      if (!Array.isArray(list)) throw answer.unexpected('the answer has no list "extensions"')
      known = new Set(
        list.flatMap(each => (isObject(each) && typeof each['alias'] === 'string' ? [each['alias']] : [])),
      )
      return known
    },
  }
}
