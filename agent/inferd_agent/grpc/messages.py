"""The messages of service.proto and health.proto. Written by `make stubs`: change the .proto files, not this one.

They live in a pool of their own, so that they clash with no other package that knows the same protocol.
"""

from __future__ import annotations

from base64 import b85decode
from typing import Any

from google.protobuf import descriptor_pool, message_factory

_POOL = descriptor_pool.DescriptorPool()
_FILES = (
    b"3Jr5*a&~EBWiD`XZ**@G32AO-WpZV1V`U-}3K3Ifa&~2MOlfvyQe|;<Wpi{QC<+o&WpZ|9a!hG<Wm08xaBpsNWfBq!1Z-(`Wf%b<0VoJk1Z-(`"
    b"Wg-*`5>sVzc4cx>WnpA_Qe|;<Wpi{QD+&`+WpZ|9a#CesWO-6$b8v5Nb7c|~3I%dyVPtt20U!Y=2vP-dWnpA_A{Po3Q)O~?WpYhrbYWy+bYW6u"
    b"adl;LbRuR77E@(%c4cx+WprU=VRT_qWpi+EZgXW45()%vVQpm?0U!Y=2~q@ZVQpm+7zzh=WpZ<AZ*CX@AOR=|QU`Wra&u{KZW0~}3T1e7Wo~n6"
    b"Z*FrK10Vw^2~rAWcywiMb7^mGb0R?s5lwGoWo%MqVPttyWpQ<7b953C3IuLpZDkk%AOR=|QUq>cZDkS|3I}#&a&u{KZWsa}0VoMl2X<w0b7^mG"
    b"A}R_JO>bmnY*J-mWO-6$b8v5Nb7c|~3I%dyVPtt20U!Y=2vP-dWnpA_B18%lO>bmnY)xf!VPs)+VNzvrb!BsO5)ujoZeeX@7y%#wC<#&oZeeX@"
    b"5*P{xc4cyNX>V>A0w4h>2~r1kWpZ<AZ*C&b0tyvPZ)9a`O=WapWMOn+Qe|^+Z*FsC5)ujoZeeX@7y%#wC<#&oZeeX@5*i8!c4cyNX>V?G7y=*z"
    b"C<#&sc4cyNX>V?G5*i8!aBN|8W^ZzB7y}>yC<#&saBN|8W^ZzB5=ROKX>M?JbaNO4AOk21GA}M^Zf0e2Wo~0-E=_M_Wo%7lbYWy+bYW6ub8v5N"
    b"b7d}6Wo~nCa!qA)VPs)+VNwQZZg6#Ua}r4k2XA$BaCLNZ7zH2$C<`(#E@^INWpZV1V`VN)Z)9a`O=WapWMOn+Qe|^+Z*FsCE>vZ1b8m7@WprU="
    b"VRT_q2XA$BaCLNZ8deGpRAp{+Z*om#bYWy+bYT(_3IuLpZDkk%AOR=|QUq>cZDkS~3J7FjbYXOPaAg<*AOR=|QV3*WbYXOPaAgt{3I%g$VQ^&_"
    b"10Vw^15yQZXkl<=BG&;54oPliWpYqqa$#*{bY*f99|{U$Z*Od0aA9&`Z5RO{0VoJa08$BJZ*Oc+VRB(@5+Mo;X>N2jG+%IGa$#*40w4h>14sZ;"
    b"3TbY1HZ)LSa$#)}BMJ<2baH8KXJ2q(a$#*410Vq?2}l4^3v+aGX>MmwVRB(@5+e!>WN&q1Y-L|?VRB(@7z7{zC;><SQVV2nbz*E~P+@XmZ4x62"
    b"40UO4bT%|!aA9&`Z5Rb00Vo7W08$HeX>N2jG*Dr3VQoSZ3J`E%a$#*{bY*g1V`y(_V`U=40typJZf0e2RAp{+Z*oI#ZggdCbaN6T3Jqd!Z){&<"
    b"Z*FvDZgg`P0U!e?2vQ7UZ*OcvZ*FvDZgg`JAqos>ZggK`Z*FvDZgg`P0w4n@1yT!XZgfL$ZggdCbaN6V3Jz&*bT%|!V{dMBWo~qH7y}>!C<9Ur"
    b"X>N2jG(&H0bY*UIa}py84RvX5bYEj{ZggdCbaNO4AOk23QVexzZgfL$ZggdCbaN6X3J-N@Zge&@Ut@1>bY*UIa~K6611JPi4s~g6bT%|YZ*FvD"
    b"Zgg`JBMJ>>a5FMrV{dMBWo~qH7zQ8%C<0OpW^gkyLvL<$Wo~qH5+e!?W^gt%Ut@1>bY*UIa~KC811JGf3}$dPG(&H0bY*UIa}p&A4q|z9WpiI+"
    b"Z*FvDZgg`P2p|I}3{nkZd30rSLvL<$Wo~qHBAo~d5lwGoWo$`qW@U0xWpQ<7b953N3JPs+WMyn$ZeeX@7y%#wC<#&tZEs{{Y))ZqWfCI_4Q+2^"
    b"Wo%z|WpZ<AZ*CX@AOR=|QVeZxWMyntWpZ<AZ*CF}3Ib_l7y}>yC<#&mX=D;i3JP#xa$#*{bY*gL7z7{#C<`(yE@^INWpZV1V`VN)Z)9a`Np5Ck"
    b"a#Ce+b!BsOE>K}|VQpn}WpZ;xZgg^aQVMWka$#*{bY*gL5=9CIX>M?JbaNO5AOk21GA%A?Zf0e2Wo~0-E=_M_Wo$`qW@U0xWpQ<7b963AZf0e2"
    b"Np5g;bW~+-b8m7|25D|^b#!wQQ3?ldb#!obbaNO6AOk21GB+-1Zf0e2Wo~0-E=_M_Wo$`qW@U0xWpQ<7b963AZf0e2Qe|;<Wpi|8WKVT;aCLN4"
    b"Wo~nCa#9Cxb#!obbaN6c3KDW*cVB64aCLNFV{dMBWo~qH7zZE&C=5~%a$$E#Zg6#ULvL<$Wo~qH8qER<5J_%kWpYVwaCLN4Wo~nCauN~>1a4t%"
    b"Wf%b<0VoMl1a4t%WfB?+2xMV&VRU(LWf%e=0VoMl2xMV&VRU(LWfBw$1#@U&aAg<+AOk1^QU!BpVQ^&<T?z_tVRB(@Wprh7a~K3511JkJJuYc("
    b"W@U0^ZewLGO>bmnY)NirWpYwwadl;LbS_D5W@U0oZg6#URAp{+Z*neBVRB(@Wprh7b46}+a(Pk;aA9&`ZDn+2a&r<o3J7CwZggdCbaNO5AOR=~"
    b"G9E5zZf0e2Wo~0-E=g`?WpY$yZgX#PLvL<$Wo~qHQV3&jZggdCbaNV53J*|Wa$#*{bY*gLMQ(I*c@hu`18Ze@7y%#wC<#&nYh`&7FA4>AVQh6}"
    b"7y=*xC<`(fE@^INWpZV1V`VN$Zf0e2P+@XmZDn+2a#96$VQh6}Is!NW8uI}P8cA+uWpYwwadl;LbY)~ub#!obbW~+-b8m7I5()%vVQpm?0U!Y="
    b"2~q@ZVQpm+X9@~%VRB(@Wprh7a~J|311JkJM=oh@W@U0^ZewLGO>bmnY)NirWpYwwadl;LbS_D5W@U0xWpQ<7b97~7Pjz%~b#zo^ZgX#PE>K}|"
    b"VQpn}WpZ;xZgg^aQVMWka$#*{bY*gL8dwSsP+@XmZDn+2a&tv)baHtT5DEipWqB9@AOR=|QUhycc@i%Q1$JR<b!8X=AOR=~G8ryuZf0e2Wo~0-"
    b"E=g`?WpYqqa$#*{bY*f<1$JR<b!9pNH~|`13J*|Wa$#*{bY*gLMQ(I*c@hu`18Ze@7y%#wC<#&nYh`&7FA4>AVQh6}7y=*xC<`(fE@^INWpZV1"
    b"V`VN$Zf0e2P+@XmZDn+2a#96$VQh6}Is!NWBBKQg5>0PpWo$`qW@U0xWpi+EZgXW49SRC<Z)9a`Uv6P-Wf%b<0VoMl32kp=Wo%AiZDkT83Jq;<"
    b"WMyn$c4cyNX>V>A0w4h>2~rGgZ)9a`R%LQ?X>V>44hjNkWEcY=0VoMl0%>FtO$rKdVRB(@Wprh7a~K3511JkJEiP$pW@U0^ZewLGO>bmnY)Nir"
    b"WpYwwb8v5Nb7d}2VRB(@Wprh7b46}+a(Pk;aA9&`ZDn+2a&r<%3I}g>bZ~Waa~K6611JkJFD_|rW@U0^ZewLGO>bmnY)NirWpYwwb8v5Nb7d|`"
    b"Zf0e2Pjz%~b#zo^ZgX#PQU`B!bZ~Waa}q8J6LMj9UvG7EaCLNFV{dMBWo~qH7zQ8%C=5~&a$$E*b#!obbVF}$bY*UIa~hNa3K2<eW@U0ub#!ob"
    b"bW~+-b8m7I5()%vVQpm?0U!Y=2~q@ZVQpm+8VU$xVRT`1d2nSI0w4h>2~r4TVRT`1d2nSC6bc1%Xkl<=7y}>!C<9Ujb7*03WfETs3UFa^VQpn}"
    b"WpZ;E1Rw(_3o<`0X>Mj^a%FB~WiCx`WMyngZf0e2Qe|^+Z*FsCE=g`?WpYn-bZ~WaRAp{+Z*neBVRB(@Wprh7b46}+a(Pk;aA9&`ZDn+2a&sD3"
    b"3J*|Wa$#*{bY*gLMQ(I*c@hu`18Ze@7y%#wC<#&nYh`&7FA4>AVQh6}7y=*xC<`(fE@^INWpZV1V`VN$Zf0e2P+@XmZDn+2a#96$VQh6}Is!NW"
    b"8dwSsP+@XmZDn+2a&tv)baHtT5DEipWqB9@AOR=|QUhycc@i%Q1$JR<b!8X=AOR=~G8ryuZf0e2Wo~0-E=g`?WpYqqa$#*{bY*f<1$JR<b!9pN"
    b"H~}Js0SXvRZ)9a`Q*?4=VQoonW@U0xWpi+EZgXW4BMJ>=a&m8SUu|V`b75y?7y%#wC<#&wWpZ+Fa!qA(b75y?5=06PX>Mj^a$j;~b8v5Nb7dF;"
    b"AOR=~G94~yZf0e2Wo~0-E=_M_Wo$`qW@U0xWpi+EZgXW)4QXy>WpYwwb8v5Nb7dmA0SXdLZ)9a`Np5p=VQyn(M{;j<a1s&<1a4t%Wf%b<0VoMl"
    b"1a4t%WfBw$1!He@Zgdy|AOR=^QUzmgb#8PLHVOo5X>Mc~1Rwz@4l*JxX>Mj^a%FB~WiCx`WMyngZgX^DZewLfa&L8TE=y@{WKslcX>Md9K?(#*"
    b"X>Mc^4GIZMNlrvxK~+>w5C9Sk3J6O{PDEcvP*o5C5)29mOG!>dUqet;5CReo3JOa}PDEc#Peesb5CbCE0SXFDZ)9a`Np5g;bP^H@1a4t%Wf%b<"
    b"0VoMl1a4t%WfCw731ne(VPAB4aAg<*AOR>2G7~OoZf0e2Wo~0-E<|B;VN`i=Wl{)aVRT_sd2nSC5()%lX>D^D1Rw(_15yNJX>D^7CJGN}b6<04"
    b"VQ^(%bY*UHZ*mw0AOR={QVnTyQ)ppuWmIKub8m7IED91~Y;13LUvgn*XJuqxVqtV+Xcz||0VoJk5MgX=Z+B8*XJ=((LSb}cXc8I<2ybw7X>V>}"
    b"Y#0b20VoJk2ybw7X>V>}Y$CP+3JXndWMynmb#!obbP^H@1a4t%Wf%b<0VoMl1a4t%WfCw731ne(VPAB4aAg<*AOR>2G7~OoZf0e2Wo~0-E<|B;"
    b"VN`i=Wl{)aVRT_sd2nSC5()%lX>D^D10Vw^15yNJX>D^7B?=B~VPa)$UuJ1+Wo}_@Wf%k?0VoMl4QydzWo$-iY-Mg?ZDkTB3J+;>Uvp?-aAjX~"
    b"Wo~nCau^060VoJk4QX>zXkl<=RAp{+Z*n5O0tymMZ)9a`R%LQ?X>V>&Z)|B}c@jPf25ez;Wpi{G0U!Y=3o;}wX>Mj^a%FB~WiCx`WMyntWpZ<A"
    b"Z*EX;Y-wY8E=*x`Wpi{$08$2QVRU74bP_cR17U1z7y=*xC<`(nE@^INWpZV1V`VN)Z)9a`R%LQ?X>V>&Z)|B}c`iY0Y)Al717U1z5=06Jb8uy2"
    b"X=Z6-7y}>yC<`(sE@^INWpZV1V`VN)Z)9a`R%LQ?X>V>&Z)|B}c`j3MWn*b(X=6wLQV4T!Wn*b(X=55I3I<GJbY*jN5+Mo<Zgp*6c4cyNX>V?G"
    b"7y%#wC=F5zZgp)|WpZ<AZ*FrM1quT}Y-}1P3J6nhWn*b(X=4%^3J7*(a&u{KZgUs`AOk1^QV4csa&u{KZgWBp3Jq{?Y-wY8Ut?%*X=7y~i2(`}"
    b"O>bmnY(#l(VQpz+LSb}cXlZU|5-<uBaB^j4WpZ+5WM5)obYo~=b7^{I7y%#yC<RgyaB^j4WpZ+5WI|zdV`x)pdSwzn3LI@=cwcdKWp!m=WMyn&"
    b"d0%a5V{&hEWn*t{WOEn-AOR=@QW<Swcu{p_b!9|lY+-p#X=8G4b7f<1Ze(*JGYSq(Z)9a`P+@XmZDn+2auOj540CjHX>Mm<c42IFWf%b<0VoMl"
    b"3v+aGX>Mm$VQh6}A~p&ZO>bmnY*cb#ZgXK{bZKvHP;YE$V|fxB3JGLoV{dhEY-MB^0U!Y=2vP}TWn*u3aBO8{A}k6LO>bmnY*J-&aBpsNWkX?O"
    b"Xk`)>3I=6vVPb4$7y%#wC<sypWo}_&Y-J*?1_}#JZ)9a`LvL<oX=f4=3IuLpZDkk%AOR=|QUq>cZDkS~3J7p)VRUA1a%~s_AOR=|QV4KtVRUA1"
    b"a%~bs3J!K<a&u{KZeMV3Y-wY87y}>yC<`(jE@^INWpZV1V`VN)Z)9a`R%LQ?X>V>&Z)|B}c~T8_WpZ<AZ*EX;Y-wY85+n)^ZDDv{VqtV+XkT+_"
    b"dSw^{AOR=^QVeZjctT-xV`x)pdSwzT3I%CyaCLMT1t0?`3o;chX>Mj^a%FB~WiCx`WMyngZg6#UQUz&laCLMNE(!*3b#!obbQlI811JkJ7A|RS"
    b"W@U0^ZewLGO>bmnY)^G`aCLN225)tAaCLMNL<$aRZgX^DZewL%XL4_Ka2N+511JkJ9WH5ZW@U0^ZewLGO>bmnY)Ni&bYX5|Wk+&vb#PJ*X>N0L"
    b"VQyn(M{;j<a1t~M7Gz~+VRdYDUu|z>Wo%z&X>4U~VQpm?2p|C{2~refWoBV@Y;;X;WMyndX>4U~VQpm+N(vBUd2V5CX=7hvVRU0?X>Mm23m^d~"
    b"3o;)rX>Mj^a%FB~WiCx`WMynbd2V5CX=6fRbYo~~Zf8;tWO;63ZE0gdVRU0?X>Ml{MhXgWVRB(@Wprh7a~KXF11JkJCN61iW@U0^ZewLGO>bmn"
    b"Y(sBuW@%?GP+@XmZDn+2a&tv)baHu83UFa^VQpn}WpZ;87zzhsVPk7$Ze$n{AOR=|QU_vTV{2t@WD;8n7;SH4Wo%z`a$#<BVPkY@Z*E_3Z)|B}"
    b"c^DHQ0VoSHAuefdW@U0^ZewLGO>bmnY*cb#ZgXK{bZKvHP;YE$V|h{*ZEs{{Y*cb#ZgXK{bZKvHP;YE$V|fxp3J!8*b8v5Nb7fy+VPj}z7#JV{"
    b"C<`(jE@^INWpZV1V`VN)Z)9a`Qe|^+Z*FsCLt$fRWl{}tWpi+EZgXWrVPj}z8dwSsP+@XmZDn+2a&tv)baHtT5DEipWqB9@AOR=|QUhycc@i%Q"
    b"1$JR<b!8X=AOR=~G8ryuZf0e2Wo~0-E=_M_Wo%Gka$#*{bY*f<1$JR<b!9pNH~}I;3KC6kWMynaZ*FF3XHsQxb!BsO5)ujoZeeX@7y%#wC<#&o"
    b"ZeeX@5*P{xc4cyNX>V>A0w4h>2~r1kWpZ<AZ*C$*3KLClWMynaZ*FF3XHsQzaBpsNWfCq524in-W@%>_0U!Y=3o;fiX>Mj^a%FB~WiCx`WMyna"
    b"Z*FF3XHo`ZZ*FF3XCgTY5mR(wbZK*RX=6lna$$67Z*CG43I$_tb#8PR0U!Y=1X2ZKZ*^{T5)KLiZgUs{AOR=@QUY#sBJu+Y4@qujWpYz=VRUJ8"
    b"bZKLA5;h74b9G~5Wpi^F0U!Y=3o;xoX>Mj^a%FB~WiC^6VRUJ8bZKKmb#h^JX>V>)2Xl2}V`X!55-<t`W?^Y;7y=*xC<`(iE@^INWpZV1V`VN="
    b"bYXO9b98BAM0IjubZKvHQUqpUX>1ZQ3I%a>Wp!m310Vq?3o;xoX>Mj^a%FB~WiC^6VRUJ8bZKKmb#h^JX>V>)1#xv{b!8Gk3Jqg#ZE$sTWnXD-"
    b"aCLMT1Rwz@3o;xoX>Mj^a%FB~WiC^6VRUJ8bZKKmb#h^JX>V>)3}bI?aCLNLNp5g;bP_=d4P$R@aCLNLUukY;WpWq=AOR=~G8`^xZf0e2Wo~0-"
    b"E>m=2bZK*RX=6lna$$67Z*EcyV{dJ6b#!G(Zf0e25<?0OV{dJ6b#!H4Z*_EVb#xd8AOR=~G8`^xZf0e2Wo~0-E>m=2bZK*RX=6lna$$67Z*Ecz"
    b"V{dJ6b#!G<b#!obbP_oV31eYnXk}k$X>=F|AOR=~G8`^xZf0e2Wo~0-E>m=2bZK*RX=6lna$$67Z*EcuV_{=xWk_js5<3bCV_{=xWnXP+b8{F7"
    b"AOR=~G8`^xZf0e2Wo~0-E>m=2bZK*RX=6lna$$67Z*EcvV_{=xWld>wb0UBO3KU6hW@U0hVRU0?Q*>c;X>)XGV{;N63JPLjbYo~=b7^{I7y%#w"
    b"C<IaoVqtV+Xj5r=WfDOO4P$R@aCLNLUukY|b#xd4AOR=~G8`^xZf0e2Wo~0-E>m=2bZK*RX=6lna$$67Z*EcyV{dJ6b#!G(Zg6#U5<v<LV{dJ6"
    b"b#!H4X>Mj^au@?30VoSH94={YW@U0^ZewLGQ*>c;X>)XGV?=dwVRUJ4Zc+?mZ*6dObY)3yW@T~`LkbRKZ*6dObY)*}b#!obbQlC60VoSH94={Y"
    b"W@U0^ZewLGQ*>c;X>)XGV?=dwVRUJ4Zc+_nZ*6dObY)L<bZ~WaBEJF(4^3}mWo%P)VRUJ8bZKLA5)ujoZeeX@7y%#wC<#&oZeeX@5*P{xc4cyN"
    b"X>V>A0w4h>2~r1kWpZ<AZ*CGL3Jz>xb97&6Zf0e2Wo~0-7y}>yC<IasY+-YBNp5Cka%FB~WfCU}4{2^@WpZV1V`X1sZ*^{T7z7{zC<IatX>Mj^"
    b"a%FB~WkYXuZgdhS3J+y?Wn*=8X>V>{V{dhCbQlF70Vo7g4rO>{V|8?CZ*D_xb#8PLLkbURZf0e2Wo~0-UvqR}baNO6AOR=~G8!&vZf0e2Wo~0-"
    b"E=g`?WpYz=VRUJ8bZKLAQVwZuW@U0^ZewLrbYXOJ5<m(IVqtV+XkT-5VRUmC2Ot9|3o;)rX>Mj^a%FB~WiCl>W@U0hVRU0?Q*>c;X>)XGV{=jp"
    b"VqtV+Xj61ybaNs`3KmUoWMynqbYXO9b98BAb5dn-b!BsO5)ujoZeeX@7y%#wC<#&oZeeX@5*P{xc4cyNX>V>A0w4h>2~r1kWpZ<AZ*C%13Kvap"
    b"WMynqbYXO9b98BAb5dn<aBpsNWfD6I3vF*?Wo%z_bYXOJ7y%#yC<`(gE@^INWpZV1V`VN)Z)9a`Q*>c;X>)XGV{=jpZEs{{Y*Tb$baNuQ0SXvR"
    b"Z)9a`Qe|*&b7^#Ma(Pf;a$#*{bY*f99|{U$Z*Od0aA9&`Z5RO{0VoJa08$BJZ*Oc+VRB(@5+Mo;X>N2jG+%IGa$#*40w4h>14sZ;3TbY1HZ)LS"
    b"a$#)}BMJ<2baH8KXJ2q(a$#*410Vq?2}l4^3v+aGX>MmwVRB(@5+Mo;VtI6Bb6;>_a$#*41Rwz@3`hV{3SxP5Wphwra$#*k5(*G-VRB(@Wprh7"
    b"Ut?%*X=7y~R|*zVWpHnEX>@OLc}Z?$Wq49$adl;LbP^{D4{~L2Z*ysMZ*qBGZeeX@7y%#wC<#&ya%FIDb7^#Ma(PZ+ZDkS^3I%dyVPtt20w4h>"
    b"2vP-dWnpA_BFX^@7gA+#Z*ysMZ*qA_Ze(S6Qe|^+Z*FsC5=9CIZEs{{Y;za^AOk21GA%A?Zf0e2Wo~0-E>dN1Z*ysMZ*qA_Ze(S6Qe|^+Z*FsC"
    b"E=_M_Wo$`qWMz0#25oO-Wo&aAXbK8VZ)9a`Np56icoGr{1a4t%Wf%b<0VoMl1a4t%WfB+)2X<w0b7^mG7y=*xC<#&rc4cyNX>V>46bc1%bYXO5"
    b"7y}>yC<#&pb97;JWfB$&26AO#b8l`K1Rwz@2~q}fWnpt~ZX%xo3K~*naBp*IbZ>HbO>bmnY)o%qWKv~ub!BsO5+@1|a%FIDb7^#Ma(Q2FVQpm?"
    b"0U!Y=2~rMnWpHnEX>@OLc}`(%WfC0<3T<y>Wo%z=VQpm?0w4h>2~r7dZ)9a`PGN0j5>*NcaA9&`ZDn+2a&s61AOk21GBqw~Zf0e2Wo~0-E>dN1"
    b"Z*ysMZ*qA}Z)9a`OmAUiQe|;<Wpi{cP+@XmZDn+2a&tv)baHu83UFa^VQpn}WpZ;GVhRsXVRB(@Wprh7b46}+a(NOE3Il6pc^Cm80VoMl18Ze@"
    b"5;+P5c42IFWf%e=0VoSHBQ9xfW@U0^ZewLGO>bmnY*J-#Z*ysMZ*qB1VRB(@Wprh7QU!KlY;|Qi0yqI89SR##WpHnEX>@OLc};I*Wo%4uVPsNe"
    b"b8v5Nb7dl<0ty^bWpHnEX>@OLc};I*Wo%V$Y;R#?Qe|;<Wpi{ACkhX8WpHnEX>@OLd0%c}ZDkk%AOR=|QVw!uaBp*IbZ>HbPGN0j5*-Q(ZEs{{"
    b"Y+r6+ZDkk&AOR=|QVDHuWMynlVQpm+R|*PnVRB(@Wprh7a~K0411JkJH!f*zW@U0^ZewLGQe|*&b7^#Ma(PW}WMynsZftL1WKv~ub!BsOE>K}|"
    b"VQpn}WpZ;xZgg^aQVMWka$#*{bY*gL8e$3$P+@XmZDn+2a&tv)baHtT5DEipWqB9@AOR=|QUhycc@jAa1$JR<b!8X=AOR=~G9xZ&Zf0e2Wo~0-"
    b"E=_M_Wo%MqaBp*IbZ>HbP+@XmZDn+2a#96$VQh6}Is!NWA|DDJQe|*&b7^#Ma(PW}WMynsZftL1WKv~waBpsNWg;~SA5(dAbY*Q*Xkl_?WKCsl"
    b"Z*qB4bYXOLb5dn-b!BsO5)ujoZeeX@7y%#wC<#&oZeeX@BG&>6AX9mBbY*Q*Xkl_?WKCslZ*qB4bYXOLb5dn<aBpsNWfD>f2XbX+X>V?G7y%#y"
    b"C<`(;E@^INWpZV1V`VN=d2@7SZBuAra%E&qWo>VAc~f*@baiu5Wpi+EZgXWWQe|gpZ*Fr%Zgg^aQU`KnXK8P4a~f$13{quhX>V>*bYXOLa}p8?"
    b"1a4t%Wf%b<0VoMl1a4t%WfBky18Ze@7y=*xC<#&nYh`&7777M$W@d9`bQl950Vo7g25)9&b7gcA8wv?xd30r8b7^{I7z7{zC<IanVtI6BQ)zl-"
    b"8gvQ_Qe|gpZ*Fr%Zgg^a5)cXlYh`&D0U!Y=2~q=VWqA@#3I%pyY;|QA0w4h>3o<w^X>Mj^a%FB~WiC^Bb97~GQ)ppwWn@idZEtdUQ*>c;b#qc>"
    b"b8v5Nb7d}4WoKz`Zc}t&baiu51$JR<b!9pNH~}Jl3L#T@b97~GQ)ppwWn@idZEtdUQe|gpb97~LQe|;<Wpi{A5()%vVQpm?0U!Y=2~q@ZVQpm+"
    b"5DEipWqB9^AOR=|QUhycc@h>125)9&b7gcG10Vq?1X2cXW@d9`bP^j131WG4WnXh?dSw^{AOR=@QV3#sbY)X%dSxOc3L;Z^b97~GQ)ppwWn@id"
    b"ZEtdUQe|gpb97~LQe|^+Z*FsCA~^~pQ+acAWo=VvVRB_;O=WFwa(Pv5a%E>}b97~LQe|;<Wpi{A5()%vVQpm?0U!Y=2~q@ZVQpn1CJH1|d2@7S"
    b"ZBuAra%E&qWo>VAc~x$5WoKz~bY*f<Wpi+EZgXWKGYTC;b!1^vXkl_?WKCslZ*qB4bYXOLb5dn-b!BsO5)ujoZeeX@7y%#wC<#&oZeeX@BE$j;"
    b"9z%6xVN+;fa%E&qWo>VAc~f*@baiu5Wpi+EZgXW4PzncfWoKz`ZgUs`AOk21GBz%0Zf0e2Wo~0-E<<%>VN+;fa%E&qWo>VAc~f*@baiu5Wpi+E"
    b"ZgXWWQe|gpZ*Fr%Zgg^aQU`KnXK8P4a~fO<3{quhX>V>*bYXOLa}p8?1a4t%Wf%b<0VoMl1a4t%WfB_-31nq<X=7zyX=E4zAOR=@QV3*ac4=c}"
    b"Nn{cm3JGF)bY)+2X?kTC10Vq?1X2iMd30q{X?kTEataJmWoKz`ZgWL$baHtT5DEipWqB9@AOR=|QUhycc@j(t1$JR<b!8X=AOR=~GBz%0Zf0e2"
    b"Wo~0-E<<%>VN+;fa%E&qWo>VAc~f*@baiu5Wpi+EZgXWWQe|gpZ*Eg`VRUtKQU!KlY;|Qi0yqI8jsXfELv>_fQ)ppwWn@idZEtdUQe|gpb97~L"
    b"Qe|;<Wpi{A5()%vVQpm?0U!Y=2~q@ZVQpm+9SRC^VRv6>VQyq>Wf%e=0VoVo336d~NMUYdY-JJ~3JGLoc4=c}Uuk3*10Vq?15yZNWp-&}Wl3Zb"
    b"8wv?xd30r8b7^{I7z7{zC<IanVtI6BQ)zl-A|eVPLv>_fQ)ppwWn@idZEtdUQe|gpb97~LQe|^+Z*FsCA~y;lLv>_fQ)ppwWn@idZEtdURc>-+"
    b"XK8bEWpYwwadl;LbP^H@1a4t%Wf%b<0VoMl1a4t%Wg;XBB13g#VN+;fa%E&qWo>VAc~x$5WoKz~bY*f<Wpi+EZgXWKjsgl3RB~ZsWm9EzbZKs9"
    b"Qe|;<Wpi{AND2sZWps3DZfA2C0U!e?3o<M&X>Mj^a%FB~WiC{5VPj=eWps3DZf8<uadl;LbS_h6baZKMXLChvbaHu82y<n0bZKs9a}pg23T<y>"
    b"Wo%z=VQpm?0w4h>2~r7dZ)9a`PGN0j8YBt~Q)P5?X>Mm$VQh6}5)=vrc42IFWf%b<11Jen1$JR<b!8f83Jp_bbaZKMXLChvbaHtT5DEipWqB9@"
    b"AOR=|QUhycc@jYi1$JR<b!8X=AOR=~GAk}=Zf0e2Wo~0-E>v=1V`WoibaZKMXHsQxb!BsOE>mT6bZKs9R$**)Wl{xpVQh6}Is!NWBJu$W6jX9y"
    b"V`WoibaZKMXHsQzaBpsNWfDmW2y<n0bZKs9a~J_211JkJEiP$pW@U0^ZewLGRB~ZsWm9EzbZKs9Qe|^+Z*FsCE>mT6bZKs9b46}+a(Pk+b7gdN"
    b"X>Mn88YBt~Q)P5?X>Mm$VQh6}5)=vrc42IFWf%b<11Jen1$JR<b!8f93Jp_bbaZKMXLChvbaHtT5DEipWqB9@AOR=|QUhycc@jbj1$JR<b!8X="
    b"AOR=~GAu4>Zf0e2Wo~0-E>v=1V`WoibaZKMXHsQzaBpsNWiC@?baZKMXI5csb!Acoc42IFWjX>l0V37{3KC3jXH#W#bZKs9b5dn-b!BsO5=ROM"
    b"b7gdNX>Mn87y%#yC<`(xE@^INWpZV1V`VN(Z)a0wbaZKMXLC|zadl;LbS_h6baZKMXLChvbaHu82y<n0bZKs9a~h2S3Jg<abaZKMXI5csb!8GC"
    b"3JPLxZ){(1VRB(@7y%#wC<sUZQVC*jZ){Lua$#)}BMJ<4X>N2gGGB0Ea$#*40w4h>4M+e|3w3F3bTcwgVRB(@5+e!>b98cPZf9R`VRB(@7y}>y"
    b"C<#aaQVVl*a%pa7P+@XmZ9)<X5O85~VQpn}WpZC*Xm4p_Wg2G+4O3-wbZKs9b46}+a(NOE3Il6pc^Cm80VoMl18Ze@5<m(Cc42IFWf%e=0VoSH"
    b"DlTbmW@U0^ZewLGOmAmXWps3DZfA2+WpQ<7b963KWps3DZf90uY;|Q)1$JR<b!9pNH~}Kr0typMZ)a0wbaZKMXLC|zb8v5Nb7c}p3J7y$baZKM"
    b"XLA?<AOk21GAu4>Zf0e2Wo~0-E=+G{Q)P5?X>Mn8Qe|^+Z*FsCE>mT6bZKs9b46}+a(Pk+b7gdNX>Mn88jS%83{z!vbZKs9R$**)WfC6>3Sw_>"
    b"Y+rC;a$#*40U!Y=2uJ`@31V+=Y*1lxVQms43Ji5=Zgev;UvOb^VQm-!AOR>1NB~j`b!l#NGcr(Na$#)}BMJ<2baH8KXJ2q(a$#*410Vq?2}l4^"
    b"3v+aGX>MmwVRB(@LJ|rPaA9&`ZDn+2a$jR;Z)sy?8fXd)Q)P5?X>Mn8MQ(I*c@hu`18Ze@7y%#wC<#&nYh`&7K?((SVQh6}7y=*xC<`(xE@^IN"
    b"WpZV1V`VN(Z)a0wbaZKMXLC|zb8v5Nb7d}5Wps3DZf90uY;|Q)1$JR<b!9pNH~}j90SX92VRT_sd2nSC5DE-bSx`k^NlsQlOi4r#01^!f2~=57"
    b"MPEWsPfQR25)KLqR9R3(UsXv?R5%a<5)TRsR9R3(UsXv?R53OX0}>Ak3shN9MPF4(PE<285Cjqr3JX+OP(@!=NlsKYG!O+64GIZVSx`k^NlsKa"
    b"5C#$s3JO$NP(@!!PE;{A5C;+t3JO$NP(@!!PE<285C{?u3JO$NP(@!!PE<BD5D5|u3JFwMP(@!xP%$<T3K9(p2~=57MPEixGcphh5)BFoR9R3("
    b"Uq(<iG!P6D4+;xZSx`k^Q&dt(PDc<85)BFoR9R3(UqVJPHV_Unjt>eHM^aEjNp5Cka%FB~Wm9Exc4=c}5=jaQQ)O~?WpYeuc4ZPAE@^INWpZV1"
    b"V`VN=WpZ|9a!hG<Wm08vb!BsO8XYcaZf0e2Wo~0-E>mT4c4cx*X?A5&Wpi+EZgXW4ObQEAWpZ|9a#CesWO))DE@^INWpZV1V`VN=WpZ|9a#Ces"
    b"WO-6$adl;LbQ&HmX>Mj^a%FB~WiC@?a&~2MQe|Oec~WI_aBpsNWfD~i4pU`vc4cx+WprU=VRT^<ATDWcW@U0^ZewLGQ)O~?WpYhrbYWy+bYW6u"
    b"adl;LbQ&QpX>Mj^a%FB~WiC@?a&~2MO=WapWMOn+Qe|^+Z*FsC5=jaQO>bmnY*J-mWO))CE@^INWpZV1V`VN)Z)9a`Qe|Oec~WI@b!BsO8XYca"
    b"Zf0e2Wo~0-E=_M_Wo%MqVPttyWpi+EZgXW4QVI=CZ)9a`O=WapWMOn+5+5#UZf0e2Wo~0-E=_M_Wo%7lbYWy+bYW6uadl;LbQ&NoX>Mj^a%FB~"
    b"WiCx`WMynkWprU=VRT_qWpi+EZgXW4ObQE4Z)9a`LvL<oX=f50E@^INWpZV1V`VN)Z)9a`LvL<oX=hSpadl;LbQ&HmX>Mj^a%FB~WiCx`WMyna"
    b"Z*FF3XHsQzaBpsNWfE8l4^3}mWo%P)VRUJ8bZKLA5+N>WZf0e2Wo~0-E=_M_Wo%P)VRUJ8bZKLAQe|;<Wpi{IA}(oeW@U0^ZewLGO>bmnY*Tb$"
    b"bZK*RX=8IzWpi+EZgXW4NeT*0Z)9a`Np5CkauOUaX>Mj^a%FB~WiCx`WMyngZf0e2Qe|;<Wpi{I9WH5ZW@U0^ZewLGO>bmnY)NirWpYwwb8v5N"
    b"b7c})3J^_iWMynqbaG{3ZAorsWpWZ6E@^INWpZV1V`VN)Z)9a`Np5Cka#Ce+b!BsO8Y3=gZf0e2Wo~0-E=_M_Wo%P)a%Ev{Np5Cka#Ce;aBpsN"
    b"WhenK0TNgW4^m}tZ*ysMZ*qA_Ze(S65+N>WZf0e2Wo~0-E>dN1Z*ysMZ*qA_Ze(S6Qe|;<Wpi{IA}(oeW@U0^ZewLGQe|*&b7^#Ma(PK^WMz0#"
    b"Wpi+EZgXW4WC{~fWpHnEX>@OLc};I*Wo%4uVPp~|E@^INWpZV1V`VN<WpHnEX>@OLc};I*Wo%4uVPsNeadl;LbQ&fuX>Mj^a%FB~WiC=>aBp*I"
    b"bZ>HbO>bmnY)o%qWKv~waBpsNWfE!%6;fqzZ*ysMZ*qA}Z)9a`Rc>r=VPp~~E@^INWpZV1V`VN<WpHnEX>@OLc};I*Wo%V$Y;R#?Qe|;<Wpi{I"
    b"C@yJkW@U0^ZewLGQe|*&b7^#Ma(PW}WMynsZftL1WKv~waBpsNWfF4=7*lz3bY*Q*Xkl_?WKCslZ*qB4bYXOLa}p{pX>Mj^a%FB~WiC^Bb97~G"
    b"Q)ppwWn@idZEtdUQ*>c;b#qc>adl;LbQ&uzX>Mj^a%FB~WiC^Bb97~GQ)ppwWn@idZEtdUQ*>c;b#qc>b8v5Nb7c~F3K~;+b97~GQ)ppwWn@id"
    b"ZEtdUQe|gpb97~L5-cuhZf0e2Wo~0-E>n4PbY*Q*Xkl_?WKCslZ*qB3WoKz~bY*f<WpQ<7b95RlE@^INWpZV1V`VN=d2@7SZBuAra%E&qWo>VA"
    b"c~WI(X>)XCa#Ce;aBpsNWfFf198-C7bY*Q*Xkl_?WKCslZ*qB6ZgOR3X>)XCauO~sX>Mj^a%FB~WiC^Bb97~GQ)ppwWn@idZEtdURc>-+XK8bE"
    b"WpYwwadl;LbQ&)%X>Mj^a%FB~WiC^Bb97~GQ)ppwWn@idZEtdURc>-+XK8bEWpYwwb8v5Nb7c~33Km0kWMNZiVRB_;O=WFwa(Pp9VRUtK5-2Wd"
    b"Zf0e2Wo~0-E<<%>VN+;fa%E&qWo>VAc~f*@baiu5WpQ<7b95RhE@^INWpZV1V`VNwb!1^vXkl_?WKCslZ*qB4bYXOLb5dn<aBpsNWfF4=7(;br"
    b"VN+;fa%E&qWo>VAc~WI(X>)XCauO;oX>Mj^a%FB~WiCT?WMNZiVRB_;O=WFwa(Pl^XK8bEWpYwwadl;LbQ&uzX>Mj^a%FB~WiCT?WMNZiVRB_;"
    b"O=WFwa(Pl^XK8bEWpYwwb8v5Nb7c~F3K~OoWMNZiVRB_;O=WFwa(Pv5a%E>}b97~L5-cuhZf0e2Wo~0-E<<%>VN+;fa%E&qWo>VAc~x$5WoKz~"
    b"bY*f<WpQ<7b95RlE@^INWpZV1V`VNwb!1^vXkl_?WKCslZ*qB6ZgOR3X>)XCa#Ce;aBpsNWfD&c3{-MqV`WoibaZKMXA&MRX>Mj^a%FB~WiC{5"
    b"VPj=eWps3DZf8<uadl;LbQ&KnX>Mj^a%FB~WiC{5VPj=eWps3DZf8<ub8v5Nb7c}t3JXkcXH#W#bZKs9a}pgcX>Mj^a%FB~WiCu_XH#W#bZKs9"
    b"b5dn-b!BsO8XhibZf0e2Wo~0-E=+G{Q)P5?X>Mn8Qe|^+Z*FsCVg_(>Z**@n",
    b"3JhpvVQh40E^u;hbZ-(4XL4|3E@)+8Y;<TYb}=F@3KB?VVQh40Luh4VYf@!#b!BsO5*P{xb7gXNX=7y=0U!Y=2~r1hWpZ|DV`U<-0SXgHWnpY|"
    b"XhUdaV{1}nb8v5Nb7c}q3I=m@VRUtK7y%#wC=N0)E@yIZV=icAVQh40E_N|4NM&JcbZA3pWn*hnWpi+EZgXWWQ)O~?X>MmzbYXOLb5aI#bYXOL"
    b"b0SX)4O3-uc4=;BQ*>c;b#oF63I|nAOHNN$P7nYR3knBQMN(EtPDc;{5)TRsPES-{Q$<o%Nlr%)0umDn4^u@_R!KueUsX;^PES`(5Cbw=3I<4J"
    b"VQh405>N^SLuh4VYZ4+ZXL4|3E@)+8Y;<TYb}=qUWnpY|XhUdaV{1}nadl;LbQ&WrXL4|3E@)+8Y;<TYb}=qUWnpY|XhUdaV{1}nb8v5Nb7f)%"
    b"aB^>SZ!-",
)
for _file in _FILES:
    _POOL.AddSerializedFile(b85decode(_file))


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


CudaSharedMemoryRegisterRequest = _message("inference.CudaSharedMemoryRegisterRequest")
CudaSharedMemoryRegisterResponse = _message("inference.CudaSharedMemoryRegisterResponse")
CudaSharedMemoryStatusRequest = _message("inference.CudaSharedMemoryStatusRequest")
CudaSharedMemoryStatusResponse = _message("inference.CudaSharedMemoryStatusResponse")
CudaSharedMemoryUnregisterRequest = _message("inference.CudaSharedMemoryUnregisterRequest")
CudaSharedMemoryUnregisterResponse = _message("inference.CudaSharedMemoryUnregisterResponse")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
InferBatchStatistics = _message("inference.InferBatchStatistics")
InferParameter = _message("inference.InferParameter")
InferStatistics = _message("inference.InferStatistics")
InferTensorContents = _message("inference.InferTensorContents")
LogSettingsRequest = _message("inference.LogSettingsRequest")
LogSettingsResponse = _message("inference.LogSettingsResponse")
ModelConfig = _message("inference.ModelConfig")
ModelConfigRequest = _message("inference.ModelConfigRequest")
ModelConfigResponse = _message("inference.ModelConfigResponse")
ModelDynamicBatching = _message("inference.ModelDynamicBatching")
ModelInferRequest = _message("inference.ModelInferRequest")
ModelInferResponse = _message("inference.ModelInferResponse")
ModelInput = _message("inference.ModelInput")
ModelInstanceGroup = _message("inference.ModelInstanceGroup")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
ModelOutput = _message("inference.ModelOutput")
ModelParameter = _message("inference.ModelParameter")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ModelRepositoryParameter = _message("inference.ModelRepositoryParameter")
ModelResponseCache = _message("inference.ModelResponseCache")
ModelStatistics = _message("inference.ModelStatistics")
ModelStatisticsRequest = _message("inference.ModelStatisticsRequest")
ModelStatisticsResponse = _message("inference.ModelStatisticsResponse")
ModelStreamInferResponse = _message("inference.ModelStreamInferResponse")
ModelTransactionPolicy = _message("inference.ModelTransactionPolicy")
ModelVersionPolicy = _message("inference.ModelVersionPolicy")
RepositoryIndexRequest = _message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = _message("inference.RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("inference.RepositoryModelLoadRequest")
RepositoryModelLoadResponse = _message("inference.RepositoryModelLoadResponse")
RepositoryModelUnloadRequest = _message("inference.RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse = _message("inference.RepositoryModelUnloadResponse")
ServerLiveRequest = _message("inference.ServerLiveRequest")
ServerLiveResponse = _message("inference.ServerLiveResponse")
ServerMetadataRequest = _message("inference.ServerMetadataRequest")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ServerReadyRequest = _message("inference.ServerReadyRequest")
ServerReadyResponse = _message("inference.ServerReadyResponse")
StatisticDuration = _message("inference.StatisticDuration")
SystemSharedMemoryRegisterRequest = _message("inference.SystemSharedMemoryRegisterRequest")
SystemSharedMemoryRegisterResponse = _message("inference.SystemSharedMemoryRegisterResponse")
SystemSharedMemoryStatusRequest = _message("inference.SystemSharedMemoryStatusRequest")
SystemSharedMemoryStatusResponse = _message("inference.SystemSharedMemoryStatusResponse")
SystemSharedMemoryUnregisterRequest = _message("inference.SystemSharedMemoryUnregisterRequest")
SystemSharedMemoryUnregisterResponse = _message("inference.SystemSharedMemoryUnregisterResponse")
TraceSettingRequest = _message("inference.TraceSettingRequest")
TraceSettingResponse = _message("inference.TraceSettingResponse")
